"""What is left when runs are killed and stopped at random moments: nothing lost, doubled or changed."""
