"""Our records and the rules between their states; nothing here touches the host."""
