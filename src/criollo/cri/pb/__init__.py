"""Generated from api.proto by scripts/make_proto.py."""
