"""Where layers and root filesystems live on the disk, and how they are mounted."""
