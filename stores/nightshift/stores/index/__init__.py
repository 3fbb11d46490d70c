"""Index versions and their embeddings: rows in Postgres, vectors in Milvus."""
