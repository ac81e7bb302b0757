"""The documents of OCI and docker as typed values: digests, references, platforms, manifests, configs, the runtime spec."""
