"""Videos in galleries: frames sampled, sifted by a small width, kept by scene, and found again."""
