-- A commit asks which pages lie in the few segments that moved, however many pages there are.
CREATE INDEX pages_by_segment ON pages (dataset, list, segment);
