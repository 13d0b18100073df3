"""Videos in galleries: frames sampled, sifted and kept by scene; and streams watched as they come."""
