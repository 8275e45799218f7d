"""Building blocks of rlblocks beside a peer's: test problems, the peers' results, who is better at equal time."""
