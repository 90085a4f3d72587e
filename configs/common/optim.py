from .detectron2_zoo import load

SGD = load("optim.py", "SGD")  # rate 0.02, momentum 0.9, weight decay 1e-4, none on norms
