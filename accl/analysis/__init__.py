"""What finished runs say: statistics, and the comparison of arms that screens and commands show."""
