"""What runs find in Postgres: candidates, scores, rankings, answers."""
