"""What the server costs beside the model it serves, measured over real sockets."""
