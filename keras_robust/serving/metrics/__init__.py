"""What a server tells of its requests: metrics for Prometheus, alarms of its streams, a log."""
