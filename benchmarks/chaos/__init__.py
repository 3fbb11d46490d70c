"""A night under random faults, compared with a calm one."""
