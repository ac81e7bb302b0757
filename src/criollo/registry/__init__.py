"""The registry client: which host serves a name, with what credential, and the bytes themselves."""
