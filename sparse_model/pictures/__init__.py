"""Pictures for people: samples, schedules and costs."""
