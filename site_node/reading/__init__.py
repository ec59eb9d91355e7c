"""What a hospital's own people read that needs images: index, readiness, and cases under codes. Runs as the worker."""
