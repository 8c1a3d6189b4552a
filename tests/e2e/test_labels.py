"""Changed labels of real photos are found among the first (bench/label_errors.py measures all of them)."""
import csv
import random

import graft_testing as t

t.skip_without(t.SCENES, "the real scene photos")

PER_CLASS = 120
SHARE = 0.05


class Labels(t.TestCase):
    def test_changed_labels_come_first(self):
        photos = [(path, folder.name) for folder in sorted((t.SCENES / "train").iterdir())
                  for path in sorted(folder.iterdir())[:PER_CLASS]]
        classes = sorted({label for _, label in photos})
        chance = random.Random(4)
        changed = set(chance.sample(range(len(photos)), round(SHARE * len(photos))))
        manifest = self.folder / "data.csv"
        with open(manifest, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("path", "label"))
            for i, (path, label) in enumerate(photos):
                if i in changed:
                    label = chance.choice([other for other in classes if other != label])
                writer.writerow((path, label))
        document = self.succeed_json("check", manifest, "--backbone", "vgg-mini", "--json", "--quiet")
        first = {error["path"] for error in document["label_errors"][:2 * len(changed)]}
        found = sum(str(photos[i][0]) in first for i in changed) / len(changed)
        print(f"{found:.0%} of {len(changed)} changed labels are among the first {2 * len(changed)}")
        self.assertGreater(found, 0.8)
        self.assertLess(document["label_noise"], 3 * SHARE)
        # Where a label was changed, the class that it had is mostly the suggestion.
        truth = {str(photos[i][0]): photos[i][1] for i in changed}
        suggested = [error["suggestion"] == truth[error["path"]] for error in document["label_errors"] if error["path"] in truth]
        self.assertGreater(sum(suggested) / len(suggested), 0.8)


if __name__ == "__main__":
    t.main()
