"""What stands between a trained candidate and the servers: comparison, decision, approval."""
