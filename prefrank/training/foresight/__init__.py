"""What a run would take, before it is made: steps, time, memory and operations."""
