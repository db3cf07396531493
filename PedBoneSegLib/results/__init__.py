"""What is made of a finished segmentation: measurements, surface meshes, pictures."""
