"""Results of runs in Postgres: candidates, scores, rankings, answers."""
