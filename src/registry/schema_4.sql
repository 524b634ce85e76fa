-- The lower end of the 90 % interval, by which adapters are ranked; NULL for what was measured before this step.
ALTER TABLE evaluation ADD COLUMN fitness REAL;
