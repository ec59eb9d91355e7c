"""What a hospital knows of its images: labels and masks, read from its own files, under the study's names."""
