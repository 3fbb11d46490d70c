"""Everything that puts work into Redis: imports, planning, and the dispatcher."""
