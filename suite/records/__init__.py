"""What a run leaves: records, measurements, the store, and reading what strangers wrote."""
