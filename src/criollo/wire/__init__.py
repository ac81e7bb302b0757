"""Protocols as bytes and events: state machines without sockets."""
