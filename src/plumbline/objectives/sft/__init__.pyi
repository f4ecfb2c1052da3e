from plumbline.objectives.sft._nll import nll as nll
