"""From a request, an image and a host to the runtime spec of one container: values in, values out."""
