"""A backup of a site: everything that cannot be made again, in one encrypted file, and the way back."""
