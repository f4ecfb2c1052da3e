from plumbline.objectives.unlearn._npo import npo as npo
from plumbline.objectives import unlearn as unlearn
