"""What `zerolabel export` does around the formats: photos of masks, and a folder that is whole."""
