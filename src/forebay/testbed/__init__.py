"""What Forebay is tried against: simulated providers, virtual time, load, benchmarks."""
