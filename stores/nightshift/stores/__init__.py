"""The room that opens sockets and files: Postgres, Redis, Milvus, images, the embedded stack."""
