"""kpod: images, containers and pods from the command line."""
