// A worker that makes thumbnails: decoding an image of 50 megapixels would freeze the page. One image
// at a time, so that no two large ones are in memory.
'use strict';

const THUMBNAIL = 512;  // pixels of the longer side: two for each that a card has
let last = Promise.resolve();

/** Answers {id, file} with {id, blob}; without blob for what the browser cannot read. */
onmessage = ({data: {id, file}}) => {
  last = last.then(() => thumbnailOf(file))
    .then(blob => postMessage({id, blob}), () => postMessage({id}));
};

async function thumbnailOf(file) {
  const image = await createImageBitmap(file, {imageOrientation: 'from-image'});
  const scale = Math.min(1, THUMBNAIL / Math.max(image.width, image.height));
  const canvas = new OffscreenCanvas(Math.max(1, Math.round(image.width * scale)),
                                     Math.max(1, Math.round(image.height * scale)));
  const context = canvas.getContext('2d');
  context.fillStyle = '#fff';  // what Graft puts behind transparent images
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingQuality = 'high';
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  image.close();
  return canvas.convertToBlob({type: 'image/jpeg', quality: .85});
}
