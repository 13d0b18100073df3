"""The service: one model for all requests, whose queries get narrower under load instead of late."""
