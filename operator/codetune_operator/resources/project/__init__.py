"""What a Project makes: the scan Job. Pure."""
