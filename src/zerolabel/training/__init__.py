"""How weights move: views, objectives, schedules, the loop, and its checkpoints."""
