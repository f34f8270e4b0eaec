"""Results of finished runs: statistics, and the comparison of arms that screens and commands show."""
