"""The service over HTTP: requests become questions, replies become JSON, and nothing else happens here."""
