"""Everything that knows PyAV: reading, writing, containers, encoders, tracks."""
