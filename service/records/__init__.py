"""What the server keeps of its answers and is told about them."""
