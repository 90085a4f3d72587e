from .detectron2_zoo import load

train = load("train.py", "train")
