"""What runs beside the untrusted trainer, in its process."""
