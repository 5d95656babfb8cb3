"""What things cost: each benchmark measures its rivals side by side."""
