from plumbline.objectives.unlearn._npo import npo as npo
