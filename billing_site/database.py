"""What every writer shares: retries, row claims, trigger operations, the database's clock. No model."""
