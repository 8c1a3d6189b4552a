#include "cli/import_options.h"

#include "cli/arguments.h"
#include "cli/option_flags.h"

namespace graft::cli {

ClassifierImport ImportArguments::import() const {
  ClassifierImport out;
  out.classes = class_names(classes);
  out.preprocessing = preprocessing;
  out.head = head;
  out.input = input;
  out.resampling = resampling;
  return out;
}

bool ImportArguments::any() const {
  return !classes.empty() || preprocessing != PixelFamily::of_weights || !head.empty();
}

void add_import_options(CLI::App& app, ImportArguments& arguments) {
  app.add_option("--classes", arguments.classes,
                 "Another program's classifier: its classes in the order of its outputs, 'A,B,C', "
                 "or a text file with one a line")
      ->type_name("NAMES|FILE");
  FlagAdder{app}(
      {"preprocessing", "FAMILY",
       "Likewise: how pixels were prepared, where its file does not say it: keras "
       "(vgg16.preprocess_input), torch, torch-stretched (without its crop), unit (RGB / "
       "255), symmetric (RGB / 127.5 - 1) or raw (RGB 0 to 255)"},
      arguments.preprocessing, options::Word{});
  app.add_option(
         "--head", arguments.head,
         "Likewise: the layers behind the backbone, where its file has weights alone, as in "
         "'flatten dense:256 dropout:0.5'; the last Dense to the classes is implied")
      ->type_name("LAYERS");
  FlagAdder{app}({"input-size", "N",
                  "Likewise: the size of its images in pixels, N or HEIGHTxWIDTH, where its file "
                  "leaves it open"},
                 arguments.input, options::Extent{});
  FlagAdder{app}({"resampling", "FILTER",
                  "How images were brought to that size: nearest (Keras' load_img), bilinear-noaa "
                  "(its image_dataset_from_directory), bilinear (antialiased; the default) or "
                  "bicubic"},
                 arguments.resampling, options::Word{});
  app.get_option("--preprocessing")->group(app.get_option("--head")->get_group());
  app.get_option("--resampling")->group(app.get_option("--head")->get_group());
  app.get_option("--input-size")->group(app.get_option("--head")->get_group());
}

}  // namespace graft::cli
