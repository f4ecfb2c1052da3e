from plumbline.objectives.preference._dpo import dpo as dpo
