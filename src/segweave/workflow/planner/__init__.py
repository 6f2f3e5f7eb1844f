"""Parts of a plan: facts of a store, candidates by cost, measured speed, decisions with reasons."""
