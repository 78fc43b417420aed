"""The gRPC server: batching, monitoring, and the border between wire and library."""
